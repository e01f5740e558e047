/* Saves the floating-point environment of the calling thread during a call. Start-up code of libraries
 * built with -Ofast enables flush-to-zero for a thread, which would change scores.
 */
#ifndef LG_FPENV_H
#define LG_FPENV_H

#if defined(__x86_64__)
#include <xmmintrin.h> /* _mm_getcsr, _mm_setcsr */

typedef unsigned int lg_fpenv;

static inline lg_fpenv lg_fpenv_enter(void)
{
    lg_fpenv const saved = _mm_getcsr();
    _mm_setcsr(0x1f80); /* all exceptions masked, round to nearest, subnormals kept */
    return saved;
}

static inline void lg_fpenv_leave(lg_fpenv const saved)
{
    _mm_setcsr(saved);
}

#elif defined(__aarch64__)
#include <stdint.h> /* uint64_t */

typedef uint64_t lg_fpenv;

static inline lg_fpenv lg_fpenv_enter(void)
{
    lg_fpenv saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" : : "r"((lg_fpenv)0) : "memory");
    return saved;
}

static inline void lg_fpenv_leave(lg_fpenv const saved)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(saved) : "memory");
}

#else
#include <fenv.h> /* fegetenv, fesetenv */

typedef fenv_t lg_fpenv;

static inline lg_fpenv lg_fpenv_enter(void)
{
    lg_fpenv saved;
    fegetenv(&saved);
    fesetenv(FE_DFL_ENV);
    return saved;
}

static inline void lg_fpenv_leave(lg_fpenv const saved)
{
    fesetenv(&saved);
}

#endif
#endif
