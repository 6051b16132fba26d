"""Cedar: the schema, the scope index, and the one place where a question is judged. Pure."""
