/// Packets of strangers: whatever comes, it is refused or read within its bounds, and what was read
/// as a name can be written and read again.

#include <cstdlib>
#include <variant>

#include "dns/wire.h"

namespace {

void check_name(const dns::Name& name) {
  if (name.wire.size() > dns::name_octets_max) std::abort();
  const std::optional<dns::ReadName> again = dns::read_name(name.wire, 0);
  if (!again || again->name != name || again->end != name.wire.size()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view packet(reinterpret_cast<const char*>(data), size);
  const dns::ParsedQuery parsed = dns::parse_query(packet);
  if (const auto* query = std::get_if<dns::Query>(&parsed)) {
    check_name(query->name);
    if (query->question.size() > packet.size()) std::abort();
  }
  if (const std::optional<dns::Response> response = dns::parse_response(packet)) {
    check_name(response->name);
    if (response->opt_offset && *response->opt_offset >= size) std::abort();
  }
  return 0;
}
