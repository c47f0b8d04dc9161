"""`python -m persona` is `persona`."""

from persona.cli.app import main

main()
