"""Long-term memory for any MCP client, in files the user owns."""

__version__ = "0.1.0"
