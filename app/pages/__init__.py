"""The pages: HTML at the URLs of the resources, for requests that accept it. Programs get JSON there, from `app.web`.

Adding a page takes one file here, one template, and one entry in PAGES.
"""
