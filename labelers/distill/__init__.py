"""Distilling: from documents and a teacher to a small labeler of one's own, in stages."""

__all__ = ()
