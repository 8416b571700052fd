"""How the page looks: two palettes and one style sheet, without a font, image or script from anywhere.

Who graded is told by shape first (solid: a human; dashed or hatched: a model; dotted: nobody) and by words,
and by colour only on top of these. Every text colour has a contrast of at least 4.5 on both grounds, every
mark at least 3, in both palettes.
"""

from __future__ import annotations

from harness.report_html import Html

__all__ = ["GROUNDS", "MARKS", "PALETTE", "TEXTS", "style"]

PALETTE: dict[str, dict[str, str]] = {
    "light": {
        "ground": "#ffffff",
        "panel": "#f6f7f8",
        "ink": "#1b2026",
        "quiet": "#59626d",
        "rule": "#dfe3e7",
        "axis": "#868f99",
        "up": "#0b6b57",
        "down": "#a1420c",
        "same": "#4d5864",
        "human": "#24558f",
        "model": "#74439a",
    },
    "dark": {
        "ground": "#14171b",
        "panel": "#1c2026",
        "ink": "#e6e9ed",
        "quiet": "#a2acb8",
        "rule": "#333a43",
        "axis": "#77818d",
        "up": "#5cc4a9",
        "down": "#f0986f",
        "same": "#b3bcc7",
        "human": "#8ab6f0",
        "model": "#cba6ee",
    },
}
GROUNDS = ("ground", "panel")
TEXTS = ("ink", "quiet", "up", "down", "same", "human", "model")
MARKS = (*TEXTS, "axis")


def _variables(palette: dict[str, str]) -> str:
    return "".join(f"--{key}:{value};" for key, value in palette.items())


def style() -> Html:
    """The style sheet."""
    light, dark = (_variables(PALETTE[mode]) for mode in ("light", "dark"))
    return Html(
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{_RULES}"
    )


_RULES = """\
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);overflow-wrap:anywhere;
  font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
  font-variant-numeric:tabular-nums}
main,header,footer{max-width:62rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:3.5rem}
footer{padding-bottom:4rem}
h1,h2,h3,h4{line-height:1.25;font-weight:600;text-wrap:balance}
h1{font-size:2rem;letter-spacing:-.018em;margin:.25rem 0 .75rem}
h2{font-size:1.3rem;letter-spacing:-.01em;margin:4rem 0 .5rem;padding-top:1.5rem;
  border-top:1px solid var(--rule)}
h3{font-size:1.05rem;margin:2.25rem 0 .5rem}
h4{font-size:1rem;margin:1.5rem 0 .5rem}
p{margin:.5rem 0;max-width:44rem}
.lead{font-size:1.125rem;max-width:46rem}
.eyebrow,.note,figcaption,.q{color:var(--quiet)}
.eyebrow{font-size:.8125rem;letter-spacing:.04em;margin:0}
.note,figcaption{font-size:.875rem}
figure{margin:1.5rem 0}
figcaption{margin:0 0 .75rem;max-width:44rem}
nav{margin-top:1.75rem;font-size:.875rem}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;list-style:none;margin:0;padding:0}
a{color:inherit;text-decoration-color:var(--axis);text-underline-offset:.2em}
a:hover{text-decoration-color:currentColor}
:focus-visible{outline:2px solid var(--human);outline-offset:3px;border-radius:2px}
code{font:.875em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.sr{position:absolute;width:1px;height:1px;margin:-1px;overflow:hidden;clip-path:inset(50%);
  white-space:nowrap}

.verdicts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));gap:1rem;
  margin:1.25rem 0 0;padding:0;list-style:none}
.verdicts li{background:var(--panel);border-radius:8px;padding:1.1rem 1.25rem 1.2rem;
  border-top:3px solid var(--same)}
.verdicts .measure{font-size:.875rem;color:var(--quiet);margin:0}
.verdicts .word{font-size:1.5rem;font-weight:600;letter-spacing:-.015em;line-height:1.3;margin:.1rem 0}
.verdicts .delta{margin:0;font-size:.9375rem}
.verdicts .why{margin:.6rem 0 0;font-size:.9375rem;color:var(--quiet)}
.verdicts .better{border-color:var(--up)}
.verdicts .worse{border-color:var(--down)}
.better .word,.up,td.up{color:var(--up)}
.worse .word,.down,td.down{color:var(--down)}
.mark{display:inline-block;width:1.15em}

.scroll{overflow-x:auto;margin:1rem 0;max-width:100%}
table{border-collapse:collapse;width:100%;font-size:.875rem;line-height:1.45}
caption{text-align:left;color:var(--quiet);padding:0 0 .6rem;font-size:.875rem}
th,td{text-align:left;vertical-align:baseline;padding:.45rem 1.1rem .45rem 0;font-weight:400;
  border-bottom:1px solid var(--rule)}
thead th{color:var(--quiet);font-size:.8125rem;vertical-align:bottom}
thead .n{white-space:normal}
tbody th{font-weight:500}
th:last-child,td:last-child{padding-right:0}
.n{text-align:right;white-space:nowrap}
.wide{min-width:46rem}
.scroll table,thead th{overflow-wrap:break-word}
.scroll caption>span{position:sticky;left:0;display:inline-block;max-width:calc(100vw - 2.5rem)}
.scroll tbody th{min-width:5rem}
.holes{min-width:32rem}
.facts{margin:1rem 0 2rem;table-layout:fixed}
.facts caption{color:var(--ink);font-weight:600}
.facts tbody th{width:16rem;color:var(--quiet)}
.facts thead{position:absolute;clip-path:inset(50%)}
.keep{white-space:nowrap}

.row{margin:0 0 1.1rem}
.row .head{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 1.5rem;font-size:.9375rem}
.row .head b{font-weight:600}
.row .head>span{color:var(--quiet);font-size:.8125rem}
svg{display:block;width:100%;overflow:visible}
svg text{font-size:12px;fill:var(--quiet);font-family:inherit}
svg tspan{unicode-bidi:isolate}
.zero{stroke:var(--axis);stroke-width:1.5}
.grid{stroke:var(--rule)}
.ci{stroke:var(--ink);stroke-width:2}
.dot{fill:var(--ink)}
.label-ci{stroke:var(--model);stroke-width:7}
.bounds{stroke:var(--quiet);stroke-width:2;stroke-dasharray:1 5;stroke-linecap:round}
.bounds-end{fill:none;stroke:var(--quiet);stroke-width:1.5}
.margin{fill:var(--axis);opacity:.2}
.key{display:flex;flex-wrap:wrap;gap:.4rem 1.5rem;list-style:none;margin:1rem 0 0;padding:0;
  font-size:.8125rem;color:var(--quiet)}
.key li{display:flex;align-items:center;gap:.5rem}
.key svg{width:28px;height:12px;flex:none}
.up-fill{fill:var(--up)}
.down-fill{fill:var(--down)}
.point{fill:var(--ink);fill-opacity:.5;stroke:var(--ground);stroke-width:1}
.bar{height:12px;min-width:6rem}
.human-fill{fill:var(--human)}
.model-fill{fill:var(--model)}
.hatch{fill:none;stroke:var(--model);stroke-width:2.5}
.none-line{fill:none;stroke:var(--axis);stroke-dasharray:2 2}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem 2.5rem}
.many{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,18rem),1fr));gap:0 2.5rem}
.two>*,.many>*{min-width:0}
.deltas.fixed{table-layout:fixed}
.deltas .barcell{width:40%}
.deltas .numbercell{width:5.5rem}
.deltas .q{margin-left:.75rem}
.deltas .gap{color:var(--quiet)}

details{border-top:1px solid var(--rule)}
details:last-of-type{border-bottom:1px solid var(--rule)}
summary{cursor:pointer;padding:.8rem 0;display:flex;gap:.25rem 1rem;flex-wrap:wrap;align-items:baseline}
summary::before{content:"+";color:var(--quiet);width:.8em;flex:none}
details[open]>summary::before{content:"−"}
summary::-webkit-details-marker{display:none}
summary h3,summary h4{flex:1 1 16rem;margin:0;font-size:1rem}
summary .q{font-size:.875rem}
summary .t{font-weight:400;color:var(--quiet)}
.inner{padding:.25rem 0 1.75rem}
.ranking{list-style:none;margin:0;padding:0}
.ranking li{padding:.7rem 0;border-top:1px solid var(--rule);display:grid;
  grid-template-columns:1.75rem minmax(0,1fr);gap:0 .5rem;break-inside:avoid}
.ranking .rank{color:var(--quiet);text-align:right}
.ranking .doc{margin:.2rem 0 0;font-size:.8125rem;line-height:1.5;overflow:hidden;color:var(--quiet)}
.ranking .title{margin:.3rem 0 0;font-size:.9375rem;line-height:1.4;overflow:hidden}
.chances{font-size:.8125rem;margin:.2rem 0 0;color:var(--quiet)}
.side .run{font-size:.9375rem;font-weight:600;margin:0 0 .5rem}
.meta{display:flex;flex-wrap:wrap;align-items:baseline;gap:.15rem .7rem;font-size:.8125rem;
  color:var(--quiet)}
.grade{display:inline-block;border-radius:4px;padding:0 .5em;border:1px solid;font-size:.8125rem;
  line-height:1.5;white-space:nowrap;font-weight:500}
.grade.human{border-color:var(--human);color:var(--human)}
.grade.human.some{background:var(--human);color:var(--ground)}
.grade.model{border-style:dashed;border-width:1.5px;color:var(--model)}
.grade.none{border-style:dotted;border-width:1.5px;color:var(--quiet)}

@media (max-width:40rem){
header{padding-top:2rem}
h1{font-size:1.6rem}
.deltas .barcell{width:30%}
.deltas .q{display:block;margin:0;font-size:.8125rem}
h2{margin-top:3rem}
main,header,footer{padding-left:1rem;padding-right:1rem}
.facts tbody th{width:40%}
}
@media print{
body{font-size:10pt}
main,header,footer{max-width:none;padding:0}
nav{display:none}
h2{margin-top:1.5rem}
h2,h3,h4,h5,caption,thead{break-after:avoid}
.two{grid-template-columns:1fr 1fr}
.verdicts li,figure,tr,.row{break-inside:avoid}
.scroll{overflow:visible}
.wide{min-width:0;font-size:7.5pt}
.wide th,.wide td{padding-right:.5rem}
.verdicts li{border:1px solid var(--rule);border-top-width:3px}
.grade.some{print-color-adjust:exact;-webkit-print-color-adjust:exact}
svg{print-color-adjust:exact;-webkit-print-color-adjust:exact}
.moved::details-content{content-visibility:visible;block-size:auto}
}
"""
