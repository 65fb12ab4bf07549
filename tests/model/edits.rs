//! What `ipvsadm` changes, and what it is refused (ipvs.md sections 1 and 9.2).

use std::net::SocketAddr;

use crate::model::schedulers::{Change, Scheduler};
use crate::model::tables::{Counters, Key, Millis, Model, Options, Server, ServerIndex, Service, Terms};

/// A server that nothing points at leaves the trash at some moment between these.
const TRASHED: std::ops::Range<Millis> = 110_000..190_000;

/// One command. Errors are named as in errno(3).
#[derive(Clone, Debug)]
pub enum Edit {
    AddService(Key, Options),
    ChangeService(Key, Options),
    DeleteService(Key),
    Flush,
    AddServer(Key, SocketAddr, Terms),
    ChangeServer(Key, SocketAddr, Terms),
    DeleteServer(Key, SocketAddr),
    Zero(Option<Key>),
    SetTimeouts(u32, u32, u32),
}

type Outcome = Result<(), &'static str>;

impl Model {
    /// Carries out a command.
    pub fn edit(&mut self, edit: &Edit) -> Outcome {
        match edit {
            Edit::AddService(key, options) => self.add_service(*key, options),
            Edit::ChangeService(key, options) => self.edit_service(*key, options),
            Edit::DeleteService(key) => self.delete_service(*key),
            Edit::Flush => {
                while let Some(service) = self.services.first() {
                    self.delete_service(service.key)?;
                }
                Ok(())
            }
            Edit::AddServer(key, address, terms) => self.add_server(*key, *address, *terms),
            Edit::ChangeServer(key, address, terms) => self.edit_server(*key, *address, *terms),
            Edit::DeleteServer(key, address) => self.delete_server(*key, *address),
            Edit::Zero(key) => self.zero(*key),
            Edit::SetTimeouts(tcp, tcp_fin, udp) => {
                self.set_timeouts(*tcp, *tcp_fin, *udp);
                Ok(())
            }
        }
    }

    /// Whether the reference leaves open what this does: a server is added again that may have left the trash, or not yet.
    pub fn is_open_question(&self, edit: &Edit) -> bool {
        let Edit::AddServer(key, address, _) = edit else { return false };
        self.trashed(*key, *address).is_some_and(|server| {
            let server = &self.servers[server];
            server.total == 0 && server.persistent == 0 && TRASHED.contains(&(self.now - server.idle_since))
        })
    }

    fn existing(&self, key: Key) -> Result<usize, &'static str> {
        self.service(key).ok_or("ESRCH")
    }

    fn listed(&self, service: usize, address: SocketAddr) -> Option<usize> {
        self.services[service].servers.iter().position(|server| self.servers[*server].address == address)
    }

    fn trashed(&self, key: Key, address: SocketAddr) -> Option<ServerIndex> {
        let same = |server: &Server| !server.available && server.key == key && server.address == address;
        let index = self.servers.iter().position(same)?;
        let server = &self.servers[index];
        let idle = server.total == 0 && server.persistent == 0;
        (!idle || self.now - server.idle_since < TRASHED.end).then_some(index)
    }

    fn add_service(&mut self, key: Key, options: &Options) -> Outcome {
        if self.service(key).is_some() {
            return Err("EEXIST");
        }
        self.made += 1;
        let service = Service {
            key,
            instance: self.made,
            options: options.clone(),
            servers: Vec::new(),
            scheduler: Scheduler::new(options.scheduler, &[], &self.servers),
            counters: Counters::default(),
        };
        self.services.insert(0, service);
        Ok(())
    }

    fn edit_service(&mut self, key: Key, options: &Options) -> Outcome {
        let index = self.existing(key)?;
        let service = &mut self.services[index];
        if service.options.scheduler != options.scheduler {
            service.scheduler = Scheduler::new(options.scheduler, &service.servers, &self.servers);
        }
        service.options = options.clone();
        Ok(())
    }

    fn delete_service(&mut self, key: Key) -> Outcome {
        let index = self.existing(key)?;
        for server in self.services.remove(index).servers {
            self.throw_away(server);
        }
        self.expire_orphans();
        Ok(())
    }

    fn add_server(&mut self, key: Key, address: SocketAddr, terms: Terms) -> Outcome {
        let index = self.existing(key)?;
        check(terms)?;
        if self.listed(index, address).is_some() {
            return Err("EEXIST");
        }
        let server = self.trashed(key, address).unwrap_or_else(|| self.new_server(key, address));
        let service = &mut self.services[index];
        let revived = &mut self.servers[server];
        if revived.instance != service.instance {
            revived.counters.zero();
        }
        (revived.available, revived.instance) = (true, service.instance);
        // The weight that it is added with counts as its last one even if that is 0.
        revived.last_weight = terms.weight;
        apply(revived, terms);
        service.servers.insert(0, server);
        service.scheduler.changed(service.options.scheduler, &service.servers, &self.servers, Change::Added);
        Ok(())
    }

    fn new_server(&mut self, key: Key, address: SocketAddr) -> ServerIndex {
        // One that has left the trash keeps its place here, but is never found again.
        for server in self.servers.iter_mut().filter(|server| server.key == key && server.address == address)
        {
            server.key = Key::Mark(0);
        }
        self.servers.push(Server {
            key,
            instance: 0,
            address,
            terms: Terms { weight: 0, upper: 0, lower: 0 },
            last_weight: 0,
            available: true,
            overloaded: false,
            active: 0,
            total: 0,
            persistent: 0,
            counters: Counters::default(),
            idle_since: self.now,
        });
        self.servers.len() - 1
    }

    fn edit_server(&mut self, key: Key, address: SocketAddr, terms: Terms) -> Outcome {
        let index = self.existing(key)?;
        check(terms)?;
        let position = self.listed(index, address).ok_or("ENOENT")?;
        let service = &mut self.services[index];
        apply(&mut self.servers[service.servers[position]], terms);
        service.scheduler.changed(service.options.scheduler, &service.servers, &self.servers, Change::Edited);
        Ok(())
    }

    fn delete_server(&mut self, key: Key, address: SocketAddr) -> Outcome {
        let index = self.existing(key)?;
        let position = self.listed(index, address).ok_or("ENOENT")?;
        let service = &mut self.services[index];
        let gone = service.servers.remove(position);
        let before = position.checked_sub(1).map(|before| service.servers[before]);
        let change = Change::Deleted(gone, before);
        service.scheduler.changed(service.options.scheduler, &service.servers, &self.servers, change);
        self.throw_away(gone);
        self.expire_orphans();
        Ok(())
    }

    fn throw_away(&mut self, server: ServerIndex) {
        let server = &mut self.servers[server];
        server.available = false;
        if server.total == 0 && server.persistent == 0 {
            server.idle_since = self.now;
        }
    }

    /// With `expire_nodest_conn`: connections whose server has been deleted end, and then templates without any.
    fn expire_orphans(&mut self) {
        if self.settings.expire_nodest_conn == 0 {
            return;
        }
        let orphan = |model: &Model| {
            model.connections.iter().position(|connection| !model.servers[connection.server].available)
        };
        while let Some(index) = orphan(self) {
            self.end(index);
        }
        let orphan = |model: &Model| {
            let alone = |number| !model.has_children(number);
            model
                .templates
                .iter()
                .position(|template| !model.servers[template.server].available && alone(template.number))
        };
        while let Some(index) = orphan(self) {
            self.end_template(index);
        }
    }

    fn zero(&mut self, key: Option<Key>) -> Outcome {
        if let Some(key) = key {
            self.existing(key)?;
        }
        for service in self.services.iter_mut().filter(|service| key.is_none_or(|key| service.key == key)) {
            service.counters.zero();
            service.servers.iter().for_each(|server| self.servers[*server].counters.zero());
        }
        Ok(())
    }

    fn set_timeouts(&mut self, tcp: u32, tcp_fin: u32, udp: u32) {
        let slots = [(tcp, 1), (tcp_fin, 4)];
        for (seconds, state) in slots.into_iter().filter(|(seconds, _)| *seconds != 0) {
            self.tcp_timeouts[state] = u64::from(seconds);
        }
        if udp != 0 {
            self.udp_timeout = u64::from(udp);
        }
    }
}

fn check(terms: Terms) -> Outcome {
    if terms.lower > terms.upper { Err("ERANGE") } else { Ok(()) }
}

/// A higher upper threshold, or none, ends an overload.
fn apply(server: &mut Server, terms: Terms) {
    if terms.upper == 0 || terms.upper > server.terms.upper {
        server.overloaded = false;
    }
    if terms.weight != 0 {
        server.last_weight = terms.weight;
    }
    server.terms = terms;
}
