"""The HTTP/1.1 protocol under the application: parsing, deadlines, admission."""
