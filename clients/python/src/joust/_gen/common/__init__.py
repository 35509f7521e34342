# Made by generate.py from proto/; do not edit.
