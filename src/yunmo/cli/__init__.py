"""The command line: one file per noun, which translates what a person types to the client and the answers back."""
