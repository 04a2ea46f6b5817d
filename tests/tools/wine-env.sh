# Sourced by what runs Windows programs: sets $wine and its environment.
#
# A prefix (Wine's C: drive and registry) of our own, so that the user's stays as it is. Without
# winedbg a crash is an exit code instead of a 0; without mscoree and mshtml nothing asks to be
# downloaded.
WINEPREFIX=${NETIO_WINEPREFIX:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/netio-wine}
WINEDEBUG=-all
WINEDLLOVERRIDES="mscoree=;mshtml=;winedbg.exe=d"
export WINEPREFIX WINEDEBUG WINEDLLOVERRIDES
unset DISPLAY
wine=wine
command -v wine64 >/dev/null 2>&1 && wine=wine64
