"""Jobs on the device: a cloud says which of the things that the configuration allows are to be done now.

| `do` | what happens | what the configuration says |
|---|---|---|
| `run` | a command is run, without a shell | `[jobs.run.NAME]`: which, with what, how long |
| `replace` | a file is fetched, checked, and put in place | `[jobs.replace.NAME]`: which, from where, how large |
| `restart` | the device is restarted, and the job ends after that | `[jobs.restart]`: the command |
| `renew` | the device's certificate is renewed | `[jobs] renew = true` |

A job names what it wants and never says what that is: paths, commands and hosts stand in the configuration alone.
What is being done is on disk before it is begun (`record`), so that after a restart it is known how far it came.

Inside: model < document, steps, record, running, fetching, replacing < service. Not here: the words of AWS
(`awsiot.client.jobs`), when there is a connection (`agent.run`).
"""
