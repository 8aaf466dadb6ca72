#pragma once
/// Text into trees: one decoder per language, one tree for all.
///
/// Decoders know nothing of Compose. They bound what they build, and complain with a position.

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "spec/node.h"
#include "spec/reporter.h"

namespace spec {

/// What all files of one run may grow to. Shared, so that many files are no way around it.
struct Budget {
  size_t nodes_left = base::limits::stack_nodes_max;
  size_t bytes_left = base::limits::stack_text_bytes_max;
};

/// False if the text holds bytes no stack file may hold (invalid UTF-8, NUL, control bytes), which
/// have then been reported.
bool check_bytes(std::string_view text, uint16_t file, Reporter& reporter);

/// One node per document, empty documents left out. YAML 1.2 core schema; JSON is YAML too.
std::vector<Node> decode_yaml(std::string_view text, uint16_t file, Budget& budget,
                              Reporter& reporter);

/// One node, or none after an error.
std::vector<Node> decode_toml(std::string_view text, uint16_t file, Budget& budget,
                              Reporter& reporter);

/// False if the key is longer than any key may be, which has then been reported: addresses are
/// made of keys, and must not cost memory without end.
bool check_key(const Node& member, Reporter& reporter);

/// A member called `ports!reset` or `ports!override` becomes `ports` with that tag.
void take_key_tag(Node& member);

}  // namespace spec
