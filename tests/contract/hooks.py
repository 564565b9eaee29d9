"""Reads binary responses for schemathesis, so that it compares them with the contract as text."""
import schemathesis


@schemathesis.deserializer("application/octet-stream", "application/zip", "application/yaml")
def text(ctx, response):
    return response.content.decode("latin-1")
