#!/bin/sh
# Stands for a test that cannot run here, so that the report says so: skip.sh REASON
echo "skipped: $1"
exit 77
