#include "dns/zone.h"

#include <algorithm>

namespace dns {

bool Zone::add(std::string_view name, Ipv4 address) {
  const auto parsed = name_from_text(name);
  if (!parsed) return false;
  std::vector<Ipv4>& addresses = names_[parsed->wire].addresses;
  if (std::find(addresses.begin(), addresses.end(), address) != addresses.end()) return true;
  addresses.push_back(address);
  owned_[address.value].push_back(parsed->wire);
  return true;
}

void Zone::remove(Ipv4 address) {
  const auto owned = owned_.find(address.value);
  if (owned == owned_.end()) return;
  for (const std::string& name : owned->second) {
    const auto entry = names_.find(name);
    if (entry == names_.end()) continue;
    std::erase(entry->second.addresses, address);
    if (entry->second.addresses.empty()) names_.erase(entry);
  }
  owned_.erase(owned);
}

std::optional<std::vector<Ipv4>> Zone::find(const Name& name) {
  const auto entry = names_.find(name.wire);
  if (entry == names_.end()) return std::nullopt;
  std::vector<Ipv4> rotated = entry->second.addresses;
  const size_t turn = entry->second.turn++ % rotated.size();
  std::rotate(rotated.begin(), rotated.begin() + static_cast<std::ptrdiff_t>(turn), rotated.end());
  return rotated;
}

std::optional<Name> Zone::name_of(Ipv4 address) const {
  const auto owned = owned_.find(address.value);
  if (owned == owned_.end()) return std::nullopt;
  return Name{owned->second.front()};
}

}  // namespace dns
