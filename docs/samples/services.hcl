# The cluster's services. The file belongs to no node in particular:
#
#   failoverctl validate services.hcl   checks it
#   failoverctl plan services.hcl       shows what would change
#   failoverctl apply services.hcl      puts it in force
#
# A service is held by one node at a time. Its blocks are started in the order
# in which they stand here, top to bottom, and stopped bottom to top. The same in
# JSON (a name that ends in .json) starts in the order of the properties; where a
# program would sort those, write "resources": [ {...}, {...} ] with one block each.

service "erp" {
  # What must be proven before another node takes over a lost one:
  #   "lease"  its lease has run out, or it was fenced, whichever comes first
  #   "fence"  it was fenced: for storage that two hosts must never write to
  takeover = "lease"

  # The nodes that may hold the service. Default: every node that is no witness.
  nodes = ["a", "b", "c"]

  # Which of them first: higher first, 0 if not named.
  priorities = { a = 100, b = 50 }

  # Go back by itself to a node of higher priority. Every move is an outage, if a
  # short one: the default is to stay.
  failback = false

  # A program that runs in the foreground as the guard's child, in a cgroup of
  # its own. Stopped means that the cgroup is empty.
  process "erp" {
    # The program by its absolute path, from one of the node's hook_dirs, and its
    # arguments. No shell is run.
    command = ["/etc/failoverd/hooks/erp-server", "--data", "/srv/erp"]
    # Set in addition to FAILOVER_SERVICE, FAILOVER_EPOCH and their like.
    environment = { LANG = "C.UTF-8" }
    # Where it is started. Default: /
    directory = "/srv/erp"
    # Who runs it. Default: the daemon's user.
    user = "erp"
    # How it is asked to stop, and how long it gets before it is killed.
    stop_signal  = "TERM"
    stop_timeout = "10s"
    # A TCP address that must accept before the start counts as done.
    ready = "127.0.0.1:8080"
    # How long a start may take.
    start_timeout = "30s"
    # How many crashes in a row are answered by a restart on the same node.
    restarts = 3
  }

  # A service that comes with programs of its own to start, stop and ask. They
  # run one at a time, in a cgroup of their own, and are killed at the timeout.
  exec "reports" {
    # Each is a program by its absolute path and its arguments. Exit code 0 of
    # start and stop is success. Of status: 0 is running, 3 and 7 are stopped,
    # anything else is unknown.
    start  = ["/etc/failoverd/hooks/reports", "start"]
    stop   = ["/etc/failoverd/hooks/reports", "stop"]
    status = ["/etc/failoverd/hooks/reports", "status"]
    # How long each may take. A stop that is killed is no proof of having stopped.
    start_timeout  = "30s"
    stop_timeout   = "10s"
    status_timeout = "10s"
    # Between two calls of status.
    interval = "10s"
  }

  # An address that the holder has, with the prefix length of its network. It
  # stands last so that nobody is led to a program that is not there yet.
  vip "192.0.2.100/24" {
    # The interface towards the clients, of the same name on every node.
    interface = "eth0"
    # Claim it with its prefix length rather than as /32 without a route. An
    # address that was the first of its network takes the others with it when its
    # lease runs out: leave this off unless a program needs it.
    keep_prefix = false
  }
}

# The least that makes sense: an address that moves.
service "gateway" {
  vip "192.0.2.1/24" { interface = "eth0" }
}
