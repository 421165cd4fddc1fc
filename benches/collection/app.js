// An idle HTTP server, as small as a Node app under pm2 gets.
'use strict';
require('http').createServer((request, response) => response.end('ok\n')).listen(0, '127.0.0.1');
