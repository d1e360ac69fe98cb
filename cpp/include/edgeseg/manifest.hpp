// What a bundle's manifest.json says of the network: sizes, resize rule and postprocessing. Reads with nlohmann/json.
#ifndef EDGESEG_MANIFEST_HPP
#define EDGESEG_MANIFEST_HPP

#include <array>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "edgeseg/postprocess.hpp"

namespace edgeseg {

/// How a picture becomes the graph's input.
struct ResizeRule {
    std::string mode, filter;
    std::vector<int> pad_value;
};

/// The fields of a manifest that running a bundle needs; edgeseg/manifest.py describes every one.
struct Manifest {
    static constexpr int schema_version = 4;

    std::string name, precision;
    std::vector<std::string> labels;
    std::vector<std::array<int, 3>> palette;
    int num_classes = 0, batch = 1, divisor = 1;
    bool dynamic = false;
    Size input_size, logit_size;
    ResizeRule resize;
    Postprocess postprocess;

    /// Whether labels need 16 bits.
    bool wide() const { return num_classes > 255; }
};

/// A folder that edgeseg exported, with the manifest read and the sizes of its files checked.
struct Bundle {
    std::filesystem::path path;
    Manifest manifest;

    /// A file of the bundle. Throws std::runtime_error where the bundle was exported without it.
    std::filesystem::path file(const std::string &name) const
    {
        const std::filesystem::path found = path / name;
        if (!std::filesystem::is_regular_file(found))
            throw std::runtime_error("bundle '" + path.string() + "' has no " + name + "; export it with the target that this program runs");
        return found;
    }
};

namespace detail {

inline Size size_of(const nlohmann::json &data, const char *key)
{
    const auto pair = data.at(key).get<std::array<int, 2>>();
    if (pair[0] < 1 || pair[1] < 1) throw std::runtime_error(std::string(key) + " must be at least 1x1");
    return {pair[0], pair[1]};
}

inline Manifest manifest_of(const nlohmann::json &data)
{
    const int version = data.value("schema_version", 0);
    if (version != Manifest::schema_version)
        throw std::runtime_error("it has schema version " + std::to_string(version) + ", this program reads " +
                                 std::to_string(Manifest::schema_version) + "; export the bundle again, or update this program");
    Manifest read;
    data.at("name").get_to(read.name);
    data.at("precision").get_to(read.precision);
    data.at("labels").get_to(read.labels);
    data.at("palette").get_to(read.palette);
    data.at("num_classes").get_to(read.num_classes);
    data.at("batch").get_to(read.batch);
    data.at("divisor").get_to(read.divisor);
    data.at("dynamic").get_to(read.dynamic);
    read.input_size = size_of(data, "input_size");
    read.logit_size = size_of(data, "logit_size");
    const nlohmann::json &resize = data.at("resize"), &postprocess = data.at("postprocess");
    resize.at("mode").get_to(read.resize.mode);
    resize.at("filter").get_to(read.resize.filter);
    resize.at("pad_value").get_to(read.resize.pad_value);
    postprocess.at("align_corners").get_to(read.postprocess.align_corners);
    postprocess.at("threshold").get_to(read.postprocess.threshold);
    if (read.num_classes < 1 || read.num_classes > 65535 || read.batch < 1) throw std::runtime_error("num_classes or batch is out of range");
    return read;
}

}  // namespace detail

/// Open a bundle: read its manifest, and check that each file it lists is there with its size.
///
/// Hashes and signatures are not checked here: `edgeseg doctor BUNDLE` and `edgeseg verify BUNDLE --key FILE` do that.
/// Throws std::runtime_error that says what is wrong and what to do.
inline Bundle open_bundle(const std::filesystem::path &path)
{
    const std::filesystem::path file = path / "manifest.json";
    std::ifstream stream(file, std::ios::binary);
    if (!stream) throw std::runtime_error("'" + file.string() + "' cannot be read; give the folder that edgeseg export wrote");
    try {
        const nlohmann::json data = nlohmann::json::parse(stream);
        for (const auto &[name, bytes] : data.at("sizes").items()) {
            std::error_code failed;
            const auto found = std::filesystem::file_size(path / std::filesystem::u8path(name), failed);
            if (failed || found != bytes.get<std::uintmax_t>())
                throw std::runtime_error(name + " is missing or has another size; copy the bundle again");
        }
        return {path, detail::manifest_of(data)};
    } catch (const nlohmann::json::exception &error) {
        throw std::runtime_error("'" + file.string() + "' is no manifest of edgeseg: " + error.what());
    } catch (const std::runtime_error &error) {
        throw std::runtime_error("bundle '" + path.string() + "': " + error.what());
    }
}

}  // namespace edgeseg

#endif
