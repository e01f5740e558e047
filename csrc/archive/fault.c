/* What is wrong with an archive; see the header. */
#include <stdarg.h> /* va_list */
#include <stdio.h>  /* vsnprintf */

#include "fault.h"

lg_status lg_refuse(lg_fault const *const fault, lg_status const status, char const *const format,
                    ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (fault->message && fault->size)
        vsnprintf(fault->message, fault->size, format, arguments);
    va_end(arguments);
    return status;
}
