#include "dns/wire.h"

#include <algorithm>

namespace dns {
namespace {

constexpr uint16_t flag_response = 0x8000;
constexpr uint16_t flag_authoritative = 0x0400;
constexpr uint16_t flag_truncated = 0x0200;
constexpr uint16_t flag_recursion_desired = 0x0100;
constexpr uint16_t flag_recursion_available = 0x0080;
constexpr uint16_t flag_checking_disabled = 0x0010;
constexpr uint32_t edns_dnssec_ok = 0x8000;
constexpr size_t record_fixed_bytes = 10;  // type, class, TTL, length

uint8_t octet(std::string_view packet, size_t at) { return static_cast<uint8_t>(packet[at]); }
uint16_t read_16(std::string_view packet, size_t at) {
  return static_cast<uint16_t>(octet(packet, at) << 8 | octet(packet, at + 1));
}
void put_16(std::string& bytes, uint32_t value) {
  bytes.push_back(static_cast<char>(value >> 8 & 255));
  bytes.push_back(static_cast<char>(value & 255));
}
void put_32(std::string& bytes, uint32_t value) {
  put_16(bytes, value >> 16);
  put_16(bytes, value);
}
void overwrite_16(std::string& bytes, size_t at, uint32_t value) {
  bytes[at] = static_cast<char>(value >> 8 & 255);
  bytes[at + 1] = static_cast<char>(value & 255);
}
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

void put_header(std::string& bytes, uint16_t id, uint32_t flags, uint16_t questions) {
  put_16(bytes, id);
  put_16(bytes, flags);
  put_16(bytes, questions);
  bytes.append(6, '\0');
}

void put_opt(std::string& bytes, uint32_t ttl) {
  bytes.push_back('\0');  // root
  put_16(bytes, type::opt);
  put_16(bytes, udp_reply_bytes_max);
  put_32(bytes, ttl);
  put_16(bytes, 0);
  overwrite_16(bytes, 10, read_16(bytes, 10) + 1U);  // ARCOUNT
}

struct RecordHead {
  Name name;
  uint16_t type = 0;
  uint16_t klass = 0;
  uint32_t ttl = 0;
  size_t end = 0;  ///< Behind the record's data.
};

std::optional<RecordHead> read_record(std::string_view packet, size_t offset) {
  const auto name = read_name(packet, offset);
  if (!name || packet.size() - name->end < record_fixed_bytes) return std::nullopt;
  const size_t at = name->end;
  const size_t end = at + record_fixed_bytes + read_16(packet, at + 8);
  if (end > packet.size()) return std::nullopt;
  const uint32_t ttl = uint32_t{read_16(packet, at + 4)} << 16 | read_16(packet, at + 6);
  return RecordHead{name->name, read_16(packet, at), read_16(packet, at + 2), ttl, end};
}

/// Reads the additional section of a query; false if it is broken.
bool read_query_edns(std::string_view packet, size_t offset, uint16_t records, Query& query) {
  for (uint16_t i = 0; i < records; ++i) {
    const auto record = read_record(packet, offset);
    if (!record) return false;
    offset = record->end;
    if (record->type != type::opt) continue;
    if (query.edns || record->name.labels() != 0) return false;
    query.edns = Edns{.udp_bytes = record->klass,
                      .version = static_cast<uint8_t>(record->ttl >> 16 & 255),
                      .dnssec_ok = (record->ttl & edns_dnssec_ok) != 0};
  }
  return true;
}

}  // namespace

size_t Name::labels() const {
  size_t count = 0;
  for (size_t at = 0; octet(wire, at) != 0; at += octet(wire, at) + 1U) ++count;
  return count;
}

bool Name::ends_with(const Name& suffix) const {
  if (wire.size() < suffix.wire.size()) return false;
  const size_t start = wire.size() - suffix.wire.size();
  size_t at = 0;  // The suffix must begin where a label begins.
  while (at < start) at += octet(wire, at) + 1U;
  return at == start && wire.compare(start, std::string::npos, suffix.wire) == 0;
}

Name Name::without(const Name& suffix) const {
  return Name{wire.substr(0, wire.size() - suffix.wire.size()) + '\0'};
}

std::optional<Name> name_from_text(std::string_view text) {
  if (!text.empty() && text.back() == '.') text.remove_suffix(1);
  if (text.empty()) return std::nullopt;
  Name name{""};
  while (true) {
    const size_t dot = std::min(text.find('.'), text.size());
    if (dot == 0 || dot > label_octets_max) return std::nullopt;
    name.wire.push_back(static_cast<char>(dot));
    for (const char c : text.substr(0, dot)) name.wire.push_back(lower(c));
    if (dot == text.size()) break;
    text.remove_prefix(dot + 1);
  }
  name.wire.push_back('\0');
  if (name.wire.size() > name_octets_max) return std::nullopt;
  return name;
}

std::string name_to_text(const Name& name) {
  std::string text;
  for (size_t at = 0; octet(name.wire, at) != 0; at += octet(name.wire, at) + 1U) {
    if (!text.empty()) text += '.';
    for (const char c : name.wire.substr(at + 1, octet(name.wire, at))) {
      const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
      if (plain)
        text += c;
      else
        text += fmt::format("\\{:03}", static_cast<uint8_t>(c));
    }
  }
  return text.empty() ? "." : text;
}

Name reverse_name(Ipv4 address) {
  const uint32_t value = address.value;
  const std::string text = fmt::format("{}.{}.{}.{}.in-addr.arpa", value & 255, value >> 8 & 255,
                                       value >> 16 & 255, value >> 24);
  return name_from_text(text).value_or(Name{});
}

std::optional<Ipv4> address_from_reverse(const Name& name) {
  static const Name suffix = name_from_text("in-addr.arpa").value_or(Name{});
  if (name.labels() != 6 || !name.ends_with(suffix)) return std::nullopt;
  const auto backwards = parse_ipv4(name_to_text(name.without(suffix)));
  if (!backwards) return std::nullopt;
  return Ipv4{__builtin_bswap32(backwards->value)};
}

std::optional<ReadName> read_name(std::string_view packet, size_t offset) {
  ReadName read{Name{""}, 0};
  // A pointer must lead to before the piece of name that holds it, so the walk always ends.
  size_t piece_start = offset;
  for (size_t at = offset;;) {
    if (at >= packet.size()) return std::nullopt;
    const uint8_t length = octet(packet, at);
    if ((length & 0xC0) == 0xC0) {
      if (at + 1 >= packet.size()) return std::nullopt;
      const size_t target = read_16(packet, at) & 0x3FFFU;
      if (read.end == 0) read.end = at + 2;
      if (target >= piece_start || target < header_bytes) return std::nullopt;
      piece_start = at = target;
      continue;
    }
    if (length > label_octets_max || packet.size() - at <= length) return std::nullopt;
    if (read.name.wire.size() + length + 1U > name_octets_max) return std::nullopt;
    read.name.wire.push_back(static_cast<char>(length));
    for (const char c : packet.substr(at + 1, length)) read.name.wire.push_back(lower(c));
    at += length + 1U;
    if (length != 0) continue;
    if (read.end == 0) read.end = at;
    return read;
  }
}

size_t Query::udp_room() const {
  if (!edns) return udp_reply_bytes_without_edns;
  return std::clamp<size_t>(edns->udp_bytes, udp_reply_bytes_without_edns, udp_reply_bytes_max);
}

ParsedQuery parse_query(std::string_view packet) {
  if (packet.size() < header_bytes) return NotAQuery{};
  const uint16_t flags = read_16(packet, 2);
  if (flags & flag_response) return NotAQuery{};
  BadQuery bad{.id = read_16(packet, 0),
               .opcode = static_cast<uint8_t>(flags >> 11 & 15),
               .recursion_desired = (flags & flag_recursion_desired) != 0};
  if (bad.opcode != 0) {
    bad.rcode = Rcode::NotImplemented;
    return bad;
  }
  const bool one_question = read_16(packet, 4) == 1;
  const bool has_answers = read_16(packet, 6) != 0 || read_16(packet, 8) != 0;
  if (!one_question || has_answers) return bad;
  const auto name = read_name(packet, header_bytes);
  if (!name || packet.size() - name->end < 4) return bad;
  const size_t end = name->end + 4;
  Query query{.id = bad.id,
              .recursion_desired = bad.recursion_desired,
              .checking_disabled = (flags & flag_checking_disabled) != 0,
              .name = name->name,
              .type = read_16(packet, name->end),
              .klass = read_16(packet, name->end + 2),
              .question = std::string(packet.substr(header_bytes, end - header_bytes))};
  if (!read_query_edns(packet, end, read_16(packet, 10), query)) return bad;
  return query;
}

std::optional<Response> parse_response(std::string_view packet) {
  if (packet.size() < header_bytes) return std::nullopt;
  const uint16_t flags = read_16(packet, 2);
  if (!(flags & flag_response) || (flags >> 11 & 15) != 0 || read_16(packet, 4) != 1)
    return std::nullopt;
  const auto name = read_name(packet, header_bytes);
  if (!name || packet.size() - name->end < 4) return std::nullopt;
  Response response{.id = read_16(packet, 0),
                    .rcode = static_cast<Rcode>(flags & 15),
                    .truncated = (flags & flag_truncated) != 0,
                    .name = name->name,
                    .type = read_16(packet, name->end),
                    .klass = read_16(packet, name->end + 2)};
  size_t offset = name->end + 4;
  const uint32_t records = uint32_t{read_16(packet, 6)} + read_16(packet, 8) + read_16(packet, 10);
  for (uint32_t i = 0; i < records; ++i) {
    const auto record = read_record(packet, offset);
    // A truncated response may end in the middle of a record (RFC 2181 section 9).
    if (!record) return response.truncated ? std::optional(response) : std::nullopt;
    const bool last = i + 1 == records && record->end == packet.size();
    if (last && record->type == type::opt && read_16(packet, 10) > 0) response.opt_offset = offset;
    offset = record->end;
  }
  return response;
}

std::string build_query(const Query& query, uint16_t id) {
  std::string bytes;
  put_header(bytes, id,
             flag_recursion_desired | (query.checking_disabled ? flag_checking_disabled : 0U), 1);
  bytes += query.question;
  put_opt(bytes, query.edns && query.edns->dnssec_ok ? edns_dnssec_ok : 0);
  return bytes;
}

ReplyBuilder::ReplyBuilder(const Query& query, Rcode rcode, bool authoritative)
    : edns_(query.edns) {
  put_header(bytes_, query.id,
             flag_response | flag_recursion_available | (authoritative ? flag_authoritative : 0U) |
                 (query.recursion_desired ? flag_recursion_desired : 0U) |
                 (query.checking_disabled ? flag_checking_disabled : 0U) |
                 static_cast<uint32_t>(rcode),
             1);
  bytes_ += query.question;
}

void ReplyBuilder::add_answer(uint16_t type, std::string_view data, uint32_t ttl_s) {
  put_16(bytes_, 0xC000 | header_bytes);  // The question's name, by pointer.
  put_16(bytes_, type);
  put_16(bytes_, class_internet);
  put_32(bytes_, ttl_s);
  put_16(bytes_, static_cast<uint32_t>(data.size()));
  bytes_ += data;
  overwrite_16(bytes_, 6, ++answers_);
}

void ReplyBuilder::add_a(Ipv4 address, uint32_t ttl_s) {
  std::string data;
  put_32(data, address.value);
  add_answer(type::a, data, ttl_s);
}

void ReplyBuilder::add_ptr(const Name& target, uint32_t ttl_s) {
  add_answer(type::ptr, target.wire, ttl_s);
}

std::string ReplyBuilder::finish() {
  if (edns_) put_opt(bytes_, edns_->dnssec_ok ? edns_dnssec_ok : 0);
  return std::move(bytes_);
}

std::string build_error(const BadQuery& query) {
  std::string bytes;
  put_header(bytes, query.id,
             flag_response | uint32_t{query.opcode} << 11 |
                 (query.recursion_desired ? flag_recursion_desired : 0U) |
                 static_cast<uint32_t>(query.rcode),
             0);
  return bytes;
}

std::string build_bad_version(const Query& query) {
  std::string bytes;
  put_header(bytes, query.id, flag_response, 1);
  bytes += query.question;
  constexpr uint32_t extended_rcode_bad_version = 1U << 24;  // 16 = 1 << 4, upper eight bits here
  put_opt(bytes, extended_rcode_bad_version);
  return bytes;
}

std::string build_truncated(const Query& query) {
  std::string bytes = ReplyBuilder(query, Rcode::NoError, false).finish();
  overwrite_16(bytes, 2, read_16(bytes, 2) | uint32_t{flag_truncated});
  return bytes;
}

std::string adapt_response(std::string packet, const Response& response, const Query& query) {
  overwrite_16(packet, 0, query.id);
  std::copy(query.question.begin(), query.question.end(),
            packet.begin() + static_cast<std::ptrdiff_t>(header_bytes));
  if (!query.edns && response.opt_offset) {
    packet.resize(*response.opt_offset);
    overwrite_16(packet, 10, read_16(packet, 10) - 1U);
  }
  return packet;
}

}  // namespace dns
