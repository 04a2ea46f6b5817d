// The header alone; what else there is to it comes from the command line.
#include "netio.h"
