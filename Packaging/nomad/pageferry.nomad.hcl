# The page fault handler on every client of Nomad that has Firecracker.
#
# The driver raw_exec must be enabled on the clients (plugin "raw_exec" { config { enabled = true } }): the handler must
# see the guests' processes, which other drivers hide. Install the Debian package on the clients.
job "pageferry-attach" {
  datacenters = ["dc1"]
  type        = "system"

  group "attach" {
    restart {
      attempts = 3
      interval = "1m"
      delay    = "1s"
      mode     = "delay"
    }

    task "attach" {
      driver = "raw_exec"
      # root: guests have users of their own.
      user = "root"

      # Two times SIGTERM, or SIGKILL after the timeout, ends the handler alone: its workers serve the guests until the
      # next handler has adopted them. The workers outlive the task, because raw_exec kills only the group of processes
      # of its command, and each worker has a group of its own. With cgroups v2, Nomad kills all processes of the task's
      # cgroup: the guests then wait for the next handler.
      kill_signal  = "SIGTERM"
      kill_timeout = "2s"

      config {
        command = "/usr/bin/pageferry"
        args    = ["attach", "--config", "${NOMAD_TASK_DIR}/config.yaml"]
      }

      template {
        destination = "local/config.yaml"
        # A change is read by SIGHUP, which ends nothing.
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<EOF
attach:
  socket: /run/pageferry-uffd.sock
  from: 10.0.0.1:7200
  state: /run/pageferry/attach
  log-format: json
EOF
      }

      resources {
        cpu    = 1000
        memory = 512
      }
    }
  }
}
