"""What the control plane and the edge both speak: pure types and one pure decision, no I/O.

`snapshot` is what the edge holds of the control plane's data, `decide` judges one INVITE against it,
`events` is what the edge reports of a call. Both sides import this package; it imports neither.
"""
