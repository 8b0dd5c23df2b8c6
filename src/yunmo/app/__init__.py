"""The only place that composes gate, faces and control: the processes of the service, and sessions without one."""
