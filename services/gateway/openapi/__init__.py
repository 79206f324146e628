"""The OpenAPI 3.1 document, made from the descriptors: nothing in it is written by hand."""
