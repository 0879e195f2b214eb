"""Device jobs: a cloud selects from the actions that the configuration allows.

| `do` | action | configuration |
|---|---|---|
| `run` | runs a command, without a shell | `[jobs.run.NAME]`: command, arguments, timeout |
| `replace` | downloads, verifies, and installs a file | `[jobs.replace.NAME]`: file, source, size |
| `restart` | restarts the device; the job ends afterwards | `[jobs.restart]`: the command |
| `renew` | renews the device's certificate | `[jobs] renew = true` |

A job selects an action by name and never defines it: paths, commands, and hosts are defined by the configuration alone.
The current step is on disk before it starts (`execution_state_file`), so progress survives a restart.

Import order: model < document_parser, execution_state_file, command_runner, file_update < resumable_executor <
job_loop. Not here: the AWS protocol (`awsiot.client.jobs`), connection handling (`agent.connection_loop`).
"""
