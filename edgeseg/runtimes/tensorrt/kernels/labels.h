/* The label of one pixel, from logits: the same words for the GPU and for the host, so that one proves the other.
 *
 * It is the arithmetic of edgeseg.postprocess, compiled method: bilinear between four logits, the lowest class winning
 * ties, and no class that some corner's winner beats at all four corners. Products and sums must be rounded one by one:
 * compile without contraction (nvrtc --fmad=false, cc -ffp-contract=off) and without flushing denormals.
 *
 * Logits are (classes, h, w). One class means two labels: a constant `threshold` is class 0. NaN and infinity have no
 * label: `broken` is set where one is met. */
#ifndef EDGESEG_LABELS_H
#define EDGESEG_LABELS_H

#ifndef EDGESEG_FUNCTION
#define EDGESEG_FUNCTION static inline
#endif

/* Where one output row or column lies among the logits: between `low` and `high`, by `t` of the way. */
typedef struct {
    int low, high;
    float t;
} EdgesegPlace;

template <typename Logit>
struct EdgesegField {
    const Logit *logits;
    int classes, height, width;
    float threshold;

    EDGESEG_FUNCTION int count(const EdgesegField &field) { return field.classes == 1 ? 2 : field.classes; }

    EDGESEG_FUNCTION float at(const EdgesegField &field, int label, int y, int x)
    {
        if (field.classes == 1 && label == 0) return field.threshold;
        const long long plane = field.classes == 1 ? 0 : label;
        return edgeseg_float(field.logits[(plane * field.height + y) * field.width + x]);
    }
};

/* The values of a class at the four corners: upper left, upper right, lower left, lower right. */
template <typename Logit>
EDGESEG_FUNCTION void edgeseg_corners(const EdgesegField<Logit> &field, int label, EdgesegPlace y, EdgesegPlace x, float *out)
{
    typedef EdgesegField<Logit> Field;
    out[0] = Field::at(field, label, y.low, x.low);
    out[1] = Field::at(field, label, y.low, x.high);
    out[2] = Field::at(field, label, y.high, x.low);
    out[3] = Field::at(field, label, y.high, x.high);
}

template <typename Logit>
EDGESEG_FUNCTION int edgeseg_label(const EdgesegField<Logit> &field, EdgesegPlace y, EdgesegPlace x, int *broken)
{
    const int count = EdgesegField<Logit>::count(field);
    float now[4], best[4], tops[4][4];
    int winners[4] = {0, 0, 0, 0};
    bool finite = true;
    for (int label = 0; label < count; label++) {
        edgeseg_corners(field, label, y, x, now);
        for (int q = 0; q < 4; q++) {
            finite = finite && now[q] - now[q] == 0.0f;
            if (label == 0 || now[q] > best[q]) {
                best[q] = now[q];
                winners[q] = label;
            }
        }
    }
    if (!finite) *broken = 1;
    if (winners[1] == winners[0] && winners[2] == winners[0] && winners[3] == winners[0]) return winners[0];
    for (int q = 0; q < 4; q++) edgeseg_corners(field, winners[q], y, x, tops[q]);

    int chosen = -1;
    float highest = 0.0f;
    for (int label = 0; label < count; label++) {
        edgeseg_corners(field, label, y, x, now);
        bool lost = false;
        for (int q = 0; q < 4; q++) {
            float lead = tops[q][0] - now[0];
            for (int corner = 1; corner < 4; corner++) {
                const float other = tops[q][corner] - now[corner];
                lead = other < lead ? other : lead;
            }
            lost = lost || (label > winners[q] ? lead >= 0.0f : lead > 0.0f);
        }
        if (lost) continue;
        const float across = now[1] - now[0], down = now[2] - now[0];
        const float twist = (now[3] - now[1]) - down;
        const float value = (now[0] + y.t * down) + x.t * (across + y.t * twist);
        if (chosen < 0 || value > highest) {
            highest = value;
            chosen = label;
        }
    }
    return chosen;
}

#endif
