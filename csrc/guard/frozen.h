/* The arrays of the whole guard: views, poolings, the model's size and the decision. */
#ifndef LG_FROZEN_H
#define LG_FROZEN_H

#include "guard.h"

/* Sets the layers and the width of the model if the archive holds them. */
void lg_serving_model(lg_archive const *archive, size_t *layers, size_t *width);

/* Binds the arrays that replace the manifest: views, poolings, sizes. */
lg_status lg_serving_bind(lg_guard *guard, lg_faults *faults);

/* Binds the policy and the clean scores that the decision was calibrated on. */
lg_status lg_decision_bind(lg_guard *guard, lg_faults *faults);

#endif
