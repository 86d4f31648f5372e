node: a
address: 192.0.2.11
