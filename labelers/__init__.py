"""Whatever looks at a (query, document) pair and gives a signal, and how it is trained."""
