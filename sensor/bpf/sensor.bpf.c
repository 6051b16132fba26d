/* The sensor's programs. They look and tell; none of them changes or refuses anything. */
#include "dialect.h"
#include "telling.h"
#include "sockets.h"
#include "packets.h"
#include "processes.h"
