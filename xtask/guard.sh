# Ends the process group $1 when the program that started it was killed, with $2 seconds between SIGTERM and SIGKILL.
# That program holds the pipe to this one's standard input: it writes a line when the group has ended. A pipe that closes
# without one means that nobody is left to end the group.
read -r _ || { kill -s TERM -- "-$1"; sleep "$2"; kill -s KILL -- "-$1"; }
