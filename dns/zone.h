#pragma once
/// The names of one network: which addresses answer to them right now.
///
/// A name may have several addresses (replicas of a service); each answer starts with another one.
/// Lookup is one hash away however many names there are. Knows nothing of packets' transport.

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "dns/ipv4.h"
#include "dns/wire.h"

namespace dns {

class Zone {
 public:
  /// A name that cannot be a DNS name is left out; the return value says so.
  bool add(std::string_view name, Ipv4 address);
  /// Takes every name of `address` away.
  void remove(Ipv4 address);

  /// All addresses, rotated by one at each call; nothing if the name does not exist.
  std::optional<std::vector<Ipv4>> find(const Name& name);
  bool contains(const Name& name) const { return names_.count(name.wire) != 0; }
  /// The first name that was added for this address.
  std::optional<Name> name_of(Ipv4 address) const;
  size_t size() const { return names_.size(); }

 private:
  struct Entry {
    std::vector<Ipv4> addresses;
    uint32_t turn = 0;
  };
  std::unordered_map<std::string, Entry> names_;                  ///< By wire form.
  std::unordered_map<uint32_t, std::vector<std::string>> owned_;  ///< By address.
};

}  // namespace dns
