#include "dns/answer.h"

#include "base/overloaded.h"

namespace dns {
namespace {

std::string rcode_only(const Query& query, Rcode rcode, bool authoritative) {
  return ReplyBuilder(query, rcode, authoritative).finish();
}

/// `db.test` is `db` with domain `test`; an alias that really contains dots comes first.
std::optional<std::vector<Ipv4>> find_addresses(const Name& name, Zone& zone,
                                                const std::optional<Name>& domain) {
  if (auto found = zone.find(name)) return found;
  if (domain && name.ends_with(*domain)) return zone.find(name.without(*domain));
  return std::nullopt;
}

bool is_localhost(const Name& name) {
  static const Name localhost = name_from_text("localhost").value_or(Name{});
  return name.ends_with(localhost);
}

std::string answer_addresses(const Query& query, const std::vector<Ipv4>& addresses) {
  ReplyBuilder reply(query, Rcode::NoError, true);
  // An existing name without the wanted type is "no data", never "no such name": musl's resolver
  // takes the latter, told about AAAA, as final for A as well.
  if (query.type == type::a || query.type == type::any)
    for (const Ipv4 address : addresses) reply.add_a(address, answer_ttl_s);
  return reply.finish();
}

std::string answer_reverse(const Query& query, Ipv4 address, const Zone& zone,
                           const std::optional<Name>& domain) {
  const auto name = zone.name_of(address);
  if (!name) return rcode_only(query, Rcode::NameError, true);
  ReplyBuilder reply(query, Rcode::NoError, true);
  Name full = *name;
  if (domain && name->labels() == 1) {
    full.wire.pop_back();
    full.wire += domain->wire;
  }
  if (query.type == type::ptr || query.type == type::any) reply.add_ptr(full, answer_ttl_s);
  return reply.finish();
}

Outcome answer_query(Query query, Zone& zone, const AnswerOptions& options) {
  if (query.edns && query.edns->version != 0) return Reply{build_bad_version(query)};
  if (query.klass != class_internet) return Reply{rcode_only(query, Rcode::Refused, false)};
  const auto domain = name_from_text(options.domain);
  // localhost first, so that no container can take that name over (RFC 6761).
  if (is_localhost(query.name)) return Reply{answer_addresses(query, {Ipv4{0x7F000001}})};
  if (const auto addresses = find_addresses(query.name, zone, domain))
    return Reply{answer_addresses(query, *addresses)};
  const auto reversed = address_from_reverse(query.name);
  if (reversed && options.subnet.contains(*reversed))
    return Reply{answer_reverse(query, *reversed, zone, domain)};
  const bool ours = query.name.labels() < 2 || (domain && query.name.ends_with(*domain));
  if (ours || !options.forward) return Reply{rcode_only(query, Rcode::NameError, true)};
  return AskUpstream{std::move(query)};
}

}  // namespace

std::string fit_reply(std::string reply, const Query& query, Transport transport) {
  if (transport == Transport::Udp && reply.size() > query.udp_room()) return build_truncated(query);
  if (reply.size() > message_bytes_max) return server_failure(query);
  return reply;
}

std::string server_failure(const Query& query) {
  return rcode_only(query, Rcode::ServerFailure, false);
}

Outcome answer(std::string_view packet, Zone& zone, const AnswerOptions& options,
               Transport transport) {
  return std::visit(base::overloaded{
                        [](const NotAQuery&) -> Outcome { return Ignore{}; },
                        [](const BadQuery& bad) -> Outcome { return Reply{build_error(bad)}; },
                        [&](const Query& query) -> Outcome {
                          Outcome outcome = answer_query(query, zone, options);
                          if (auto* reply = std::get_if<Reply>(&outcome))
                            reply->bytes = fit_reply(std::move(reply->bytes), query, transport);
                          return outcome;
                        },
                    },
                    parse_query(packet));
}

}  // namespace dns
