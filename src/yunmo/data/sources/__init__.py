"""Where data comes from: tables, pictures and arrays, each in one file."""
