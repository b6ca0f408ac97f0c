"""The models as tools of an assistant, by the Model Context Protocol. It needs the extra `mcp`."""
