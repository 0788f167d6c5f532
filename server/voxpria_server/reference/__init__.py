"""What tells others how to use the API: the OpenAPI document, made of the routes and of what they declare."""
