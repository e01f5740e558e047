"""Envoy's external processing over gRPC. Needs ``layerguard[extproc]``."""
