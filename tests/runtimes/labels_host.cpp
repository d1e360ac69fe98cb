/* The label kernel's functions on the host: what the GPU computes, one pixel after another. */
#include <stdint.h>
#include <string.h>

#define EDGESEG_FUNCTION static inline

EDGESEG_FUNCTION float edgeseg_float(float value) { return value; }
EDGESEG_FUNCTION float edgeseg_float(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = (half >> 10) & 31, fraction = half & 1023;
    uint32_t bits = sign | ((exponent + 112) << 23) | (fraction << 13);
    float value;
    if (exponent == 31) bits = sign | 0x7F800000u | (fraction << 13);
    if (exponent == 0) {
        value = (float)fraction * 5.9604644775390625e-08f;
        memcpy(&bits, &value, 4);
        bits |= sign;
    }
    memcpy(&value, &bits, 4);
    return value;
}

#include "labels.h"

template <typename Logit, typename Label>
static void run(void **arguments, int batch)
{
    const Logit *logits = *(const Logit **)arguments[0];
    const int classes = *(int *)arguments[1], h = *(int *)arguments[2], w = *(int *)arguments[3];
    const float threshold = *(float *)arguments[4];
    const EdgesegPlace *rows = *(const EdgesegPlace **)arguments[5], *columns = *(const EdgesegPlace **)arguments[6];
    const int height = *(int *)arguments[7], width = *(int *)arguments[8];
    Label *labels = *(Label **)arguments[9];
    int *broken = *(int **)arguments[10];
    for (long long picture = 0; picture < batch; picture++) {
        EdgesegField<Logit> field = {logits + picture * classes * h * w, classes, h, w, threshold};
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++)
                labels[(picture * height + y) * width + x] = (Label)edgeseg_label(field, rows[y], columns[x], broken);
    }
}

/* As cuLaunchKernel takes them: pointers to the arguments. */
#define HOST(Logit, Label) (void **arguments, int batch) { run<Logit, Label>(arguments, batch); }
extern "C" void edgeseg_labels_f32_u8 HOST(float, uint8_t)
extern "C" void edgeseg_labels_f32_u16 HOST(float, uint16_t)
extern "C" void edgeseg_labels_f16_u8 HOST(uint16_t, uint8_t)
extern "C" void edgeseg_labels_f16_u16 HOST(uint16_t, uint16_t)
