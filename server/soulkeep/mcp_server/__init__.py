"""The MCP server: what a client sees of a home, over stdin and stdout."""
