"""OpenTelemetry traces of the server, the extra ``otel``; nothing here is imported without it."""
