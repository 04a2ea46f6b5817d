#!/usr/bin/env python3
"""Drives examples/poller_echo_server.c: all that it does is in echo_server.py."""
import echo_server

echo_server.drive("poller_echo_server")
