#pragma once
/// The bytes of DNS messages (RFC 1035, EDNS0 of RFC 6891): read with strict bounds, and built.
///
/// Packets come from strangers on both sides, guests and upstream servers. So a compression
/// pointer may only point backwards, a name has at most 255 octets and a label 63, and every loop
/// is bounded by the packet's length. No sockets here; no allocation larger than the packet.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "dns/ipv4.h"

namespace dns {

inline constexpr size_t header_bytes = 12;
inline constexpr size_t name_octets_max = 255;
inline constexpr size_t label_octets_max = 63;
inline constexpr size_t message_bytes_max = 65535;
/// The largest UDP reply we send or ask for: no fragment on any sane path (DNS flag day 2020).
inline constexpr size_t udp_reply_bytes_max = 1232;
inline constexpr size_t udp_reply_bytes_without_edns = 512;

enum class Rcode : uint8_t {
  NoError = 0,
  FormatError = 1,
  ServerFailure = 2,
  NameError = 3,
  NotImplemented = 4,
  Refused = 5,
};

namespace type {
inline constexpr uint16_t a = 1;
inline constexpr uint16_t soa = 6;
inline constexpr uint16_t ptr = 12;
inline constexpr uint16_t aaaa = 28;
inline constexpr uint16_t opt = 41;
inline constexpr uint16_t any = 255;
}  // namespace type
inline constexpr uint16_t class_internet = 1;

/// A name in wire form (length octets, root octet at the end), ASCII letters in lower case, so
/// that equal names have equal bytes.
struct Name {
  std::string wire = std::string(1, '\0');
  bool operator==(const Name&) const = default;
  /// 0 for the root, 1 for `db`, 2 for `db.test`.
  size_t labels() const;
  /// True for `suffix` itself and everything below it.
  bool ends_with(const Name& suffix) const;
  /// Without the last `suffix.labels()` labels; the caller has checked ends_with.
  Name without(const Name& suffix) const;
};

/// From text as users write it: `db`, `db.test`, `db.test.`; nothing if a label is empty or long.
std::optional<Name> name_from_text(std::string_view text);
/// For logs and tests; octets that are no letters, digits, `-` or `_` as `\ddd`.
std::string name_to_text(const Name& name);
/// `2.64.168.192.in-addr.arpa` for 192.168.64.2.
Name reverse_name(Ipv4 address);
/// The inverse; nothing for any other name.
std::optional<Ipv4> address_from_reverse(const Name& name);

struct ReadName {
  Name name;
  size_t end = 0;  ///< Offset behind the name as it stands in the packet.
};
/// Reads the name at `offset`, following pointers backwards only.
std::optional<ReadName> read_name(std::string_view packet, size_t offset);

struct Edns {
  uint16_t udp_bytes = 0;
  uint8_t version = 0;
  bool dnssec_ok = false;
};

/// A query fit to be answered.
struct Query {
  uint16_t id = 0;
  bool recursion_desired = false;
  bool checking_disabled = false;
  Name name;
  uint16_t type = 0;
  uint16_t klass = 0;
  std::string question;  ///< The question as sent, letter case kept: it is echoed.
  std::optional<Edns> edns;

  /// What fits the asker's UDP buffer.
  size_t udp_room() const;
};

/// Too short, or itself a response: answering such packets makes loops.
struct NotAQuery {};
/// Broken in a way the sender is told about.
struct BadQuery {
  uint16_t id = 0;
  uint8_t opcode = 0;
  bool recursion_desired = false;
  Rcode rcode = Rcode::FormatError;
};
using ParsedQuery = std::variant<Query, NotAQuery, BadQuery>;
ParsedQuery parse_query(std::string_view packet);

/// What we look at in an upstream's response.
struct Response {
  uint16_t id = 0;
  Rcode rcode = Rcode::NoError;
  bool truncated = false;
  Name name;
  uint16_t type = 0;
  uint16_t klass = 0;
  /// Where a final OPT record starts, if there is one.
  std::optional<size_t> opt_offset;
};
/// Nothing unless every section is well formed and there is exactly one question.
std::optional<Response> parse_response(std::string_view packet);

/// One query for an upstream server, with an OPT record of ours.
std::string build_query(const Query& query, uint16_t id);

/// Builds a reply record by record; the sections must be filled in their order.
class ReplyBuilder {
 public:
  ReplyBuilder(const Query& query, Rcode rcode, bool authoritative);
  void add_a(Ipv4 address, uint32_t ttl_s);
  void add_ptr(const Name& target, uint32_t ttl_s);
  /// Adds the OPT record if the query had one, and gives the message away.
  std::string finish();

 private:
  void add_answer(uint16_t type, std::string_view data, uint32_t ttl_s);
  std::string bytes_;
  std::optional<Edns> edns_;
  uint16_t answers_ = 0;
};

/// Header only, no question: for queries that could not be read.
std::string build_error(const BadQuery& query);
/// The EDNS version is not ours (RFC 6891 6.1.3).
std::string build_bad_version(const Query& query);
/// The same message cut down to its question, with TC set: "ask again by TCP".
std::string build_truncated(const Query& query);

/// Turns an upstream's response into the answer to `query`: id, letter case of the question, and
/// the OPT record only for those who sent one. `response` must have passed parse_response.
std::string adapt_response(std::string packet, const Response& response, const Query& query);

}  // namespace dns
