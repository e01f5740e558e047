"""Calibration: from rows of text to frozen parameters, through the very graph that will serve.

    from layerguard.calibration import lcf, siren

    params = lcf.fit(states, target_fpr=0.01)      # states: pooled, float32 [n, L + 1, hidden]
    params = siren.fit(states, labels)

One module a detector, each with ``fit``. ``layerguard calibrate`` collects the states
(``collect``), fits, and freezes the result into the bundle (``freeze``); ``layerguard eval``
measures it (``evaluate``). No PyTorch: the states come from the runtime.
"""
