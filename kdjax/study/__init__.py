"""Studies: populations of students, tables, figures."""
