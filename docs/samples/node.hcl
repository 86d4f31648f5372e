# A node's own file: /etc/failoverd/node.hcl
#
# Four lines are enough; everything else has a default. A line that begins with
# "#" and a key shows that key's default or an example. `failoverd validate FILE`
# checks the file and prints every setting in effect.
#
# Values are written out: there are no variables and no functions. Times are
# text with a unit: "600ms", "2s", "1m". Write "$${" for a literal "${".

# The name of this node. No other node may have it, and it stays: sessions,
# grants and the history speak of it.
node = "a"

# Where the other nodes reach this one: an IP address, with a port if it is not
# 7400. Names are refused, since a failover must not wait for a resolver. Four
# ports are used, counted from this one:
#   7400 tcp       Raft
#   7401 tcp       nodes among themselves (gRPC)
#   7402 tcp, udp  gossip
#   7403 udp       lease renewals
address = "192.0.2.11"

# Every founding node, this one among them, the same list on each. A cluster is
# founded once, when all of them say that they have no data and the same list.
# Take three or five that vote. Two are refused: when one is lost the other has
# no majority. A small third machine will do: see role.
peers = ["192.0.2.11", "192.0.2.12", "192.0.2.13"]

# The base port for addresses, here and in peers, that name none.
#port = 7400

# Nodes may be reached from other hosts without certificates: only on a network
# that nobody else is on. Without this, and without tls { } below, an address
# other than loopback is refused. Remove it when tls { } is set.
insecure = true

# What this node does:
#   "voter"    votes and may hold services
#   "witness"  votes and never holds: the third vote for two big machines
#   "member"   may hold services without a vote
#role = "voter"

# How fast a lost holder is replaced. One word sets the lease, its renewals,
# gossip and Raft together; it must be the same on all nodes.
#   "default"  after some 2 s; moves nothing on a host that is busy for a while
#   "fast"     after some 0.6 s; for a quiet network and hosts with time to spare
# Both need nftables in the kernel. Without it a lease of 3 s or more is needed:
# see timing.
#profile = "default"

# What the node must remember: the Raft log, snapshots, the journal of what is
# active. On a disk of its own host, never on shared storage. Mode 0700.
#data_dir = "/var/lib/failoverd"

# Where operators (failoverctl) reach this node on its own host. The directory
# gets mode 0750: whoever may enter it may steer the cluster.
#socket = "/run/failoverd/failoverd.sock"

# The same over TCP, host:port. With tls { } a certificate of the CA is asked for.
# Not set: operators come through the socket alone.
#api = "192.0.2.11:7409"

# The guard: the small program that owns supervised processes and ends them at
# the deadline, whatever has become of the daemon. Default: failoverguard in the
# daemon's own directory.
#guard = "/usr/sbin/failoverguard"

# The directories that programs of services may come from, links followed.
# Whoever can apply services runs these programs as root with any arguments, so
# name narrow directories: one that holds a shell or env allows everything. The
# directories and the programs must belong to root and be writable by nobody else.
#hook_dirs = ["/etc/failoverd/hooks"]

# Encrypts gossip: 16, 24 or 32 bytes in base64, the same on all nodes. Make one
# with: head -c 32 /dev/urandom | base64
# The key stands in a file that only its owner can read (mode 0600), or here, and
# then this file must be so.
#gossip_key_file = "/etc/failoverd/gossip.key"
#gossip_key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

#log {
#  # debug, info, warn or error
#  level = "info"
#  # text or json
#  format = "text"
#}

# Certificates for Raft, for nodes among themselves and for api: TLS 1.3, both
# sides. Whoever has a certificate of this CA for both ends of a connection
# (serverAuth and clientAuth) may act as a node, whatever name stands in it: use
# a CA that signs nothing else. The private key must have mode 0600. Gossip is
# not covered: set gossip_key_file too.
#tls {
#  ca   = "/etc/failoverd/ca.pem"
#  cert = "/etc/failoverd/node.pem"
#  key  = "/etc/failoverd/node.key"
#}

# Single values in place of the profile's; those of "default" are shown. What
# cannot be safe together is refused with the reason. Set the same on all nodes.
#timing {
#  # How long a holder may go on without word from a majority. At least three
#  # times renew and 226 ms, and 3 s where nftables cannot be had.
#  lease = "2s"
#  # Between two renewals.
#  renew = "200ms"
#
#  # Raft: a follower without word from a leader for so long stands for election.
#  heartbeat = "500ms"
#  # A candidate without a majority for so long tries again; heartbeat or longer.
#  election = "500ms"
#  # A leader without a majority for so long steps down; heartbeat or shorter.
#  leader_lease = "500ms"
#  # An idle leader tells its followers what is committed every one to two of these.
#  commit = "10ms"
#  # A leader whose write to disk takes longer falls silent, so that another wins.
#  disk_limit = "500ms"
#
#  # Gossip: between two probes of other nodes.
#  gossip_probe = "200ms"
#  # A probe without an answer for so long is tried through other nodes.
#  gossip_timeout = "100ms"
#  # Between two rounds of passing news on.
#  gossip_interval = "100ms"
#  # A suspect that says nothing for about so many probes is called dead.
#  gossip_suspicion = 4
#}
