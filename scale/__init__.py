"""Beyond one machine, on engines that exist: ``layerguard.scale.ray`` for Ray."""
