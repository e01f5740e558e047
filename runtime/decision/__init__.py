"""From readings to one verdict: policy, p-values, and the flag-rate monitor."""
