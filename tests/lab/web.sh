# shellcheck shell=bash
# The lab's web servers: nginx from the distribution with a configuration, pages and a pid of its own.

# One certificate for the site, as both servers answer for it, and one body that both serve.
make_site() {
  mkdir -p "$RUN/site"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
    -subj /CN=10.10.1.30 -addext subjectAltName=IP:10.10.1.30 \
    -keyout "$RUN/site/key.pem" -out "$RUN/site/certificate.pem" 2>/dev/null
  head -c 20000000 /dev/urandom >"$RUN/site/body"
  sha256sum <"$RUN/site/body" >"$RUN/site/body.sha256"
}

# start_nginx NAME LISTEN...: one that says its name.
start_nginx() {
  local name=$1 directory=$RUN/nginx-$1
  shift
  mkdir -p "$directory"
  {
    # A single process: its end is the server's end.
    printf 'daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\n'
    printf 'events { worker_connections 4096; }\nhttp {\naccess_log off;\nserver {\n'
    printf 'listen %s;\n' "$@"
    printf 'ssl_certificate %s/site/certificate.pem;\nssl_certificate_key %s/site/key.pem;\n' "$RUN" "$RUN"
    printf 'location = /body { root %s/site; }\nlocation / { return 200 "%s\\n"; }\n' "$RUN" "$name"
    printf '%s_temp_path temporary;\n' client_body proxy fastcgi uwsgi scgi
    printf '}\n}\n'
  } >"$directory/nginx.conf"
  spawn "xlvs-$name" "nginx-$name" nginx -e "$directory/error.log" -p "$directory" -c nginx.conf
}

# A real server of the article. Port 8080 belongs to no mark at first.
start_web_server() {
  start_nginx "$1" 80 '443 ssl' 8080
}

# Something of the router's own, on a port of the VIP that is not balanced.
start_router_service() {
  start_nginx router 2222
}
