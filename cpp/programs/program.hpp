// What the example programs share: a bundle and a picture in, a label map of the picture's size out.
#ifndef EDGESEG_PROGRAMS_PROGRAM_HPP
#define EDGESEG_PROGRAMS_PROGRAM_HPP

#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "edgeseg/fit.hpp"
#include "edgeseg/manifest.hpp"
#include "edgeseg/postprocess.hpp"
#include "png.hpp"

namespace edgeseg {

/// The network: uint8 (height, width, channels) of its input's size to float32 logits (classes, height, width).
using Network = std::function<Logits(const Picture &)>;

namespace detail {

template <typename Label>
void write_labels(const Logits &logits, Size size, const Manifest &manifest, const Fitted &fitted, const std::string &path)
{
    std::vector<Label> labels(static_cast<std::size_t>(size.height) * size.width);
    labels_from_logits(logits, size, manifest.postprocess, labels.data(), fitted.region ? &*fitted.region : nullptr);
    write_png(path, labels, size);
}

inline void segment(const Bundle &bundle, const Network &network, const std::string &from, const std::string &to)
{
    const Manifest &manifest = bundle.manifest;
    const Picture picture = read_png(from);
    const Fitted fitted = fit_picture(picture, manifest.input_size, manifest.resize);
    const Logits logits = network(fitted.picture);
    if (logits.classes != manifest.num_classes || logits.height != manifest.logit_size.height || logits.width != manifest.logit_size.width)
        throw std::runtime_error("the engine gave logits of another shape than the manifest has; copy or export the bundle again");
    if (manifest.wide())
        write_labels<std::uint16_t>(logits, picture.size, manifest, fitted, to);
    else
        write_labels<std::uint8_t>(logits, picture.size, manifest, fitted, to);
}

}  // namespace detail

/// The program: `make` opens the bundle's network. Returns the exit code: 0, 1 where something fails, 2 for a wrong call.
inline int run_program(int count, char **words, const std::function<Network(const Bundle &)> &make)
{
    if (count != 4) {
        std::fprintf(stderr, "usage: %s BUNDLE PICTURE.png LABELS.png\n", count > 0 ? words[0] : "program");
        return 2;
    }
    try {
        const Bundle bundle = open_bundle(words[1]);
        if (bundle.manifest.batch != 1) throw std::runtime_error("the bundle has a batch of several pictures; export it with a batch of 1");
        detail::segment(bundle, make(bundle), words[2], words[3]);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
    return 0;
}

}  // namespace edgeseg

#endif
