"""What every package stands on: processes, devices, the run folder, atomic files, logs, progress, signals."""
