/// Readers of ports, networks and name resolution of a service.

#include <algorithm>
#include <cctype>
#include <limits>
#include <set>

#include <fmt/format.h>

#include "base/lower_case.h"
#include "base/names.h"
#include "base/text.h"
#include "spec/readers.h"

namespace spec::readers {
namespace {

struct Range {
  uint16_t first = 0;
  uint16_t last = 0;
  uint32_t count() const { return uint32_t{last} - first + 1; }
};

/// `80` or `8000-8010`.
std::optional<Range> parse_range(std::string_view text, uint32_t lowest) {
  const auto number = [&](std::string_view digits) -> std::optional<uint16_t> {
    if (digits.empty() || digits.size() > 5) return std::nullopt;
    uint32_t value = 0;
    for (const char c : digits) {
      if (c < '0' || c > '9') return std::nullopt;
      value = value * 10 + static_cast<uint32_t>(c - '0');
    }
    if (value < lowest || value > 65'535) return std::nullopt;
    return static_cast<uint16_t>(value);
  };
  const size_t dash = text.find('-');
  const auto first = number(text.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : number(text.substr(dash + 1));
  if (!first || !last || *first > *last) return std::nullopt;
  return Range{.first = *first, .last = *last};
}

/// A port as written, in its pieces; both forms come to this.
struct PortText {
  std::string host_ip;
  std::string published;
  std::string target;
  std::string protocol;
};

/// `[HOST_IP:][HOST[-HOST]:]CONTAINER[-CONTAINER][/PROTOCOL]`, from the right.
PortText split_short_port(std::string_view text) {
  PortText port;
  if (const size_t slash = text.rfind('/'); slash != std::string_view::npos) {
    port.protocol = text.substr(slash + 1);
    text = text.substr(0, slash);
  }
  const size_t last = text.rfind(':');
  port.target = text.substr(last == std::string_view::npos ? 0 : last + 1);
  if (last == std::string_view::npos) return port;
  text = text.substr(0, last);
  const size_t before = text.rfind(':');
  port.published = text.substr(before == std::string_view::npos ? 0 : before + 1);
  if (before == std::string_view::npos) return port;
  port.host_ip = text.substr(0, before);
  if (port.host_ip.starts_with('[') && port.host_ip.ends_with(']'))
    port.host_ip = port.host_ip.substr(1, port.host_ip.size() - 2);
  return port;
}

PortText long_port(const Node& node) {
  const auto member = [&](std::string_view key) {
    const Node* found = node.find(key);
    return found == nullptr ? std::string() : found->text;
  };
  return {.host_ip = member("host_ip"),
          .published = member("published"),
          .target = member("target"),
          .protocol = member("protocol")};
}

std::optional<Protocol> read_protocol(Reading& reading, const Node& node, std::string name) {
  name = base::lower_case(name);
  if (name.empty() || name == "tcp") return Protocol::Tcp;
  if (name == "udp") return Protocol::Udp;
  reading.error(node, fmt::format("protocol '{}' is not supported", name), "use tcp or udp");
  return std::nullopt;
}

/// The ranges of one entry as single ports. What is written twice, perhaps in two files or in two
/// forms, is meant once.
void add_ports(Reading& reading, const Node& node, const Port& common, const Range& targets,
               const std::optional<Range>& hosts) {
  ReadContext& context = reading.context;
  if (targets.count() > context.ports_left)
    return reading.error(node, "too many ports in this stack", "publish fewer ports");
  context.ports_left -= targets.count();
  std::vector<Port>& ports = reading.service().ports;
  for (uint32_t i = 0; i < targets.count(); ++i) {
    Port port = common;
    port.target = static_cast<uint16_t>(targets.first + i);
    port.published = hosts ? static_cast<uint16_t>(hosts->first + i) : uint16_t{0};
    if (hosts && hosts->count() > targets.count()) port.published_last = hosts->last;
    if (std::find(ports.begin(), ports.end(), port) != ports.end()) continue;
    ports.push_back(std::move(port));
    reading.draft->port_places.push_back(node.place);
  }
}

void read_port(Reading& reading, const Node& node) {
  const PortText written = node.is_map() ? long_port(node) : split_short_port(node.text);
  if (node.is_map() && node.find("target") == nullptr)
    return reading.error(node, "'target' is missing", "name the port of the container");
  const auto targets = parse_range(written.target, 1);
  if (!targets || (node.is_map() && targets->count() > 1))
    return reading.error(node, fmt::format("'{}' is not a port of the container", written.target),
                         "write a number from 1 to 65535, as in \"8080:80\"");
  std::optional<Range> hosts;
  if (!written.published.empty()) {
    hosts = parse_range(written.published, 0);
    if (!hosts)
      return reading.error(node, fmt::format("'{}' is not a host port", written.published),
                           "write a number from 0 to 65535, as in \"8080:80\"");
  }
  // Several host ports for one of the container are a choice.
  if (hosts && targets->count() > 1 && hosts->count() != targets->count())
    return reading.error(node,
                         fmt::format("invalid ranges specified for container and host Ports: "
                                     "{} and {}",
                                     written.target, written.published),
                         "both ranges must have the same length");
  // 0 asks for any free port, for each of them.
  if (hosts && hosts->first == 0) hosts.reset();
  Port common;
  if (!written.host_ip.empty()) {
    if (!is_ip(written.host_ip))
      return reading.error(node, fmt::format("'{}' is not an address of the host", written.host_ip),
                           "write an IPv4 address, or an IPv6 address in brackets: [::1]:8080:80");
    common.host_ip = written.host_ip;
  }
  const auto protocol = read_protocol(reading, node, written.protocol);
  if (!protocol) return;
  common.protocol = *protocol;
  add_ports(reading, node, common, *targets, hosts);
}

bool is_mac_address(const std::string& text) {
  if (text.size() != 17) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool is_separator = i % 3 == 2;
    if (is_separator ? text[i] != ':' : std::isxdigit(static_cast<unsigned char>(text[i])) == 0)
      return false;
  }
  const int first = std::stoi(text.substr(0, 2), nullptr, 16);
  return (first & 1) == 0;  // a multicast address is nobody's own
}

std::optional<std::string> read_mac_address(Reading& reading, const Node& node) {
  if (is_mac_address(node.text)) return base::lower_case(node.text);
  reading.error(
      node, fmt::format("'{}' is not a MAC address", node.text),
      "write six pairs of hex digits such as 02:42:ac:11:00:02; the second digit is even");
  return std::nullopt;
}

void sort_unique(std::vector<std::string>& texts) {
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
}

void read_attachment(Reading& reading, const Node& node, Attachment& attachment) {
  if (const Node* aliases = node.find("aliases")) {
    Reading inner = inside(reading, "aliases");
    for (size_t i = 0; i < aliases->children.size(); ++i) {
      const Node& alias = aliases->children[i];
      if (const auto outcome = base::check_hostname(alias.text); outcome)
        attachment.aliases.push_back(alias.text);
      else
        at_index(inner, i).error(alias, "not a valid name", outcome.error().to_string());
    }
    sort_unique(attachment.aliases);
  }
  if (const Node* address = node.find("ipv4_address")) {
    if (is_ipv4(address->text))
      attachment.ipv4_address = address->text;
    else
      inside(reading, "ipv4_address")
          .error(*address, fmt::format("'{}' is not an IPv4 address", address->text),
                 "write four numbers such as 10.1.0.7");
  }
  if (const Node* mac = node.find("mac_address")) {
    Reading inner = inside(reading, "mac_address");
    attachment.mac_address = read_mac_address(inner, *mac);
  }
  const auto read_priority = [&](std::string_view key, int32_t& to) {
    const Node* member = node.find(key);
    if (member == nullptr) return;
    Reading inner = inside(reading, key);
    to = static_cast<int32_t>(integer(inner, *member, std::numeric_limits<int32_t>::min(),
                                      std::numeric_limits<int32_t>::max())
                                  .value_or(0));
  };
  read_priority("priority", attachment.priority);
  read_priority("gw_priority", attachment.gateway_priority);
}

void add_extra_host(Reading& reading, const Node& node, const std::string& name,
                    std::string address, std::set<std::string>& seen) {
  if (address.starts_with('[') && address.ends_with(']'))
    address = address.substr(1, address.size() - 2);
  if (!base::check_hostname(name) || (address != "host-gateway" && !is_ip(address)))
    return reading.error(node, fmt::format("'{}={}' is not a host and its address", name, address),
                         "write name=address, with an IP address or host-gateway");
  std::string entry = name + "=" + address;
  if (seen.insert(entry).second) reading.service().extra_hosts.push_back(std::move(entry));
}

bool is_expose(std::string_view text) {
  const size_t slash = text.find('/');
  const std::string_view protocol =
      slash == std::string_view::npos ? std::string_view("tcp") : text.substr(slash + 1);
  return parse_range(text.substr(0, slash), 1) && (protocol == "tcp" || protocol == "udp");
}

}  // namespace

void ports(Reading& reading, const Node& node) {
  for (size_t i = 0; i < node.children.size(); ++i) {
    Reading inner = at_index(reading, i);
    read_port(inner, node.children[i]);
  }
}

void expose(Reading& reading, const Node& node) {
  auto& exposed = reading.service().expose;
  for (size_t i = 0; i < node.children.size(); ++i) {
    const Node& item = node.children[i];
    if (is_expose(item.text))
      exposed.push_back(item.text);
    else
      at_index(reading, i)
          .error(item, fmt::format("'{}' is not a port", item.text),
                 "write for instance 8080 or 53/udp");
  }
  sort_unique(exposed);
}

void networks(Reading& reading, const Node& node) {
  for (const Node& child : node.children) {
    const std::string& name = node.is_list() ? child.text : child.key;
    Reading inner = inside(reading, name);
    Attachment& attachment = reading.service().networks[name];
    if (!node.is_list()) read_attachment(inner, child, attachment);
  }
}

void network_mode(Reading& reading, const Node& node) {
  if (node.text == "none") {
    reading.service().network_mode = "none";
  } else if (node.text == "host") {
    reading.error(node, "a VM cannot share the host's network",
                  "publish what is needed with 'ports'; the host is reached as host-gateway");
  } else if (node.text != "bridge" && node.text != "default") {
    reading.error(node,
                  fmt::format("network_mode '{}' is not supported by this version", node.text),
                  "use 'none', or join networks with 'networks'");
  }
}

void mac_address(Reading& reading, const Node& node) {
  reading.draft->mac_address = read_mac_address(reading, node);
}

void dns(Reading& reading, const Node& node) {
  for (std::string& address : texts(reading, node)) {
    if (is_ip(address))
      reading.service().dns.push_back(std::move(address));
    else
      reading.error(node, fmt::format("'{}' is not the address of a name server", address),
                    "write an IP address");
  }
}

void dns_search(Reading& reading, const Node& node) {
  reading.service().dns_search = texts(reading, node);
}

void dns_opt(Reading& reading, const Node& node) {
  reading.service().dns_options = texts(reading, node);
}

/// `name=address`, `name:address` (an IPv6 address may have brackets), or a map to one or several.
void extra_hosts(Reading& reading, const Node& node) {
  std::set<std::string> seen;
  for (size_t i = 0; i < node.children.size(); ++i) {
    const Node& child = node.children[i];
    if (node.is_list()) {
      const size_t equals = child.text.find('=');
      const size_t at = equals == std::string::npos ? child.text.find(':') : equals;
      const std::string address = at == std::string::npos ? "" : child.text.substr(at + 1);
      Reading inner = at_index(reading, i);
      add_extra_host(inner, child, child.text.substr(0, at), address, seen);
      continue;
    }
    Reading inner = inside(reading, child.key);
    if (child.is_scalar()) add_extra_host(inner, child, child.key, child.text, seen);
    for (const Node& item : child.children) add_extra_host(inner, item, child.key, item.text, seen);
  }
}

}  // namespace spec::readers
